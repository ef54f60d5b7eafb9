"""What to do: a sweep file becomes a frozen spec, the spec a plan of units. Imports neither torch nor ray."""
