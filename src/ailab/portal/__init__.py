"""The portal: the page one lands on after the login, a service of the hub."""
