"""What the jobs of the workflow do, files in and files out; one module where rules depend on other code."""
