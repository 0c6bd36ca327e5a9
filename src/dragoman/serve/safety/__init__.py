"""Safety page: rules on what is asked and answered, read from one YAML file, which refuse, hand over or degrade."""
