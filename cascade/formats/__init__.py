"""Reading GGUF files, GBNF grammars and JSON Schemas without llama.cpp. Private to cascade."""
