"""A site for servers in tests: the example site with further extensions."""
