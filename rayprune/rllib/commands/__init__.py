"""What the command line does with RLlib policies, one file per subcommand."""
