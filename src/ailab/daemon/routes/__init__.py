"""The API, a file a noun. Handlers find the daemon's parts in `request.app.state.parts`."""
