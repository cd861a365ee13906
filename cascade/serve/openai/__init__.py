"""The OpenAI-compatible surface of a cascade: each graph is a model, each completion is a run.

schema     what a request may say, as strict pydantic models
reading    from a body to what it asks, checked
checks     where bodies are read: here if they are small and plain, else in processes with bounds
checker    such a process
convert    from records to OpenAI's shapes
chat       /v1/chat/completions and /v1/models
responses  /v1/responses
errors     every failure in OpenAI's shape
keys       API keys, hashed at rest, with graphs, rate and budget
places     whose request is answered next
service    what all of these share: the graphs, the keys, the limits
"""
