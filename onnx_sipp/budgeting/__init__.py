"""How many weights every layer keeps: surveys, budgets, and the passes that try them."""
