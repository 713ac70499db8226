"""Will it fit, how long will it take, what will it cost: answers from the TPU compiler, with no TPU."""
