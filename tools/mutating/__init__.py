"""What tools/mutation.py is made of: changes of code, which tests reach it, trials of mutants."""
