"""The parts of the judgement store; `reasonx_ft.judgements.Store` is what others use."""
