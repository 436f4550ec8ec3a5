"""Jobs: training that goes on when you leave, on resources that are shared fairly."""
