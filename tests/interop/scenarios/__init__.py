"""What each BGP daemon is put through with a node of ours: a module for each part of the protocol."""
