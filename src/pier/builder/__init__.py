"""The builder: a graph of steps, the solver that runs them, and what becomes of the results."""
