"""Decoding with any decoder: what it must know is `decoder.Decoder`, what is asked of it `search.Search`;
`write.write` does it.

decoder   the protocol: begin from the prompt, a cache, one step with it, logits
cache     keys and values kept for many steps, and the path of a hypothesis through them
search    greedy, at random or with beams; the ids that begin and end a text
write     the compiled program: prompts in, ids out
controls  what may be written: no repetitions, words that are forbidden, or come first
debiased  several prompts of a row to write by and away from, as one decoder
greedy    one hypothesis a row; beams: several, as transformers and as bert4keras search; tokens: the best and the drawn
"""
