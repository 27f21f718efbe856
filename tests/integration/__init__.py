"""Black-box tests: real servers in processes of their own, real sockets, a real browser."""
