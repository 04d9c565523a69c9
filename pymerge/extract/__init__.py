"""What a fine-tuned model adds to its base, as a LoRA adapter: planned from headers, decomposed matrix by matrix.

plan.py says which module becomes what, decompose.py is the linear algebra, write.py the file of factors, run.py brings
them together. A matrix is held as float32 while it is decomposed; nothing else grows with a model.
"""
