"""The parts of the judgement store; `reasonx_ft.annotation.judgements.Store` is what others use."""
