"""What is done for the operations of a graph: processes, changes of files, layers over one another."""
