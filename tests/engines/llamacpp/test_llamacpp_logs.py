"""llama.cpp's messages reach the engine's log."""

from llama_cpp import _logger, llama_log_set

from llmlab.engines.base import EngineLog


def test_other_code_that_sets_a_callback_takes_no_messages_of_a_load(load, tmp_path):
    load().close()
    llama_log_set(_logger.llama_log_callback, None)
    log = EngineLog(tmp_path / "engine.log")
    engine = load(log=log)
    assert "llama" in log.tail(50)
    assert engine.memory().kv_cache > 0  # read from its messages
    engine.close()
    log.close()
