"""How the models of the zoo were trained: corpus, tokenizer, network, training, evaluation."""
