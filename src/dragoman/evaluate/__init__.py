"""How well a model translates, in numbers that can be compared with other people's."""
