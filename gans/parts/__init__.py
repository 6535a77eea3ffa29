"""What papers are made of: losses, penalties, layers."""
