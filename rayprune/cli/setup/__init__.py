"""Before a first run: a config is begun, the machine looked over, the YAML's schema written."""
