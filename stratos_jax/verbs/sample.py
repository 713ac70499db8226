"""`stratos sample`: ask a model in an HF folder, and see its answers."""

import argparse
import json

HELP = "ask a model a question and print what it samples"
EXAMPLE = "stratos sample MODEL 'Start with 12. Add a+3 b+9. What is the total?'"


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("model", help="an HF folder")
    parser.add_argument("questions", nargs="+", help="one or more questions")
    parser.add_argument("--protocol", default="bare", help="how a question is put; see stratos_jax/prompts.py")
    parser.add_argument("--samples", type=int, default=1, help="answers to each question")
    parser.add_argument("--temperature", type=float, default=0.0, help="0: the likeliest token each time")
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--json", action="store_true", help="one JSON object a sample")


def run(args: argparse.Namespace) -> None:
    """Sample and print, as answers end."""
    from stratos_jax import prompts
    from stratos_jax.engine.config import EngineConfig, SamplingConfig
    from stratos_jax.engine.request import Request
    from stratos_jax.evaluate.sample import open_engine, open_tokenizer, prompt_tokens
    from stratos_jax.types import Problem

    sampling = SamplingConfig(
        temperature=args.temperature, top_p=args.top_p, max_tokens=args.max_tokens, seed=args.seed
    )
    protocol, tokenizer = prompts.protocol(args.protocol), open_tokenizer(args.model)
    requests = []
    for number, question in enumerate(args.questions):
        problem = Problem(id=str(number), source="command line", kind="math", question=question)
        tokens = prompt_tokens(protocol, problem, tokenizer)
        for index in range(args.samples):
            request = Request(
                id=f"{number}/{index}", tokens=tokens, sampling=sampling, problem_key=question, sample_index=index
            )
            requests.append(request)
    engine = open_engine(args.model, EngineConfig(cache_dtype=args.dtype, compute_dtype=args.dtype))
    for completion in engine.generate(requests):
        text = tokenizer.decode(completion.tokens, skip_special_tokens=True)
        question = args.questions[int(completion.id.split("/")[0])]
        if args.json:
            record = {
                "id": completion.id,
                "question": question,
                "text": text,
                "finish_reason": completion.finish_reason,
            }
            print(json.dumps(record), flush=True)
        else:
            print(f"--- {question}\n{text}\n[{len(completion.tokens)} tokens, {completion.finish_reason}]", flush=True)
