"""Who may come in, and through which door: users, the hub, the proxy, workspaces."""
