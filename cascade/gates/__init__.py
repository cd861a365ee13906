"""Gates: whom do I ask? A gate scores candidates before anything is asked; each kind is one module."""
