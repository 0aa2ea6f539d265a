"""What jobs that never ran would take: a short measurement of each network here, times what the knobs ask of it."""
