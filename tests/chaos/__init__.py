"""What stays true whatever fails: real processes, real faults, and a checker over what everybody did."""
