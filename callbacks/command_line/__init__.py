"""The command line's parser, configuration files and checks."""
