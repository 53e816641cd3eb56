"""Tables of runs in, fitted laws with intervals out."""
