"""The signatures of `ferry`'s commands and their help; what a command does is imported when it runs."""
