"""Gates: whom do I ask? A gate scores candidates before anything is asked; each kind is one module.

Private: a plugin declares its settings with `cascade.spec.GateSettings`.
"""
