"""How fast a model is here, alone and in turns with another library's."""
