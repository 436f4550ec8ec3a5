"""The history of the database's shape, one step a file; alembic applies what is missing."""
