"""Whether transfer helped: strategies trained side by side, their differences, and the verdict."""
