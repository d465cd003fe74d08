"""What people see in a terminal: tables, progress, and lines about files."""
