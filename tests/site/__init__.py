"""A site for servers of tests: the example site, and extensions that only tests need."""
