"""One file per system, each defining `SYSTEM`. `kansciml.tasks.ode.registry` finds a new file by itself."""
