"""The daemon: the API, and the loop that keeps what runs equal to what is wanted."""
