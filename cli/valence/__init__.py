"""The `valence` command: the local launcher, the keyring, and superusers."""
