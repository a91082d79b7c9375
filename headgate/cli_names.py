"""Names that the command line and the processes it starts share."""

DIE_WITH_PARENT = "HEADGATE_DIE_WITH_PARENT"
"""The demo's process id, set for the processes that it starts: however it ends, none of them is left behind."""
