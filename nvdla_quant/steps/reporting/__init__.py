"""What is made of all results of a sweep.

Drawing and data frames take longer to import than a job to begin: each function imports them when it is called.
"""
