"""Names that the command line and the processes it starts share."""

DIE_WITH_PARENT = "HEADGATE_DIE_WITH_PARENT"
"""Set for processes of the demo: however it ends, none of them is left behind."""
