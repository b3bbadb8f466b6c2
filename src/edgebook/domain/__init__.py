"""The words of the system: values everybody may import, standard library only."""
