"""Two files of groups in the characters of tests.retrieval.vectors.test_encoding."""

from retrieval.tuning.groups import Group

FILES = [
    [
        Group("a, line 1", ("今天气很好", "今天很好吧", "天气好")),
        Group("a, line 2", ("我们去公园", "去公园散步吧")),
        Group("a, line 3", ("你呢？", "你好")),
        Group("a, line 4", ("散步", "我们散步去吧，很好")),
        Group("a, line 5", ("公园很好，我们去吧？我们去散步", "去吧")),
    ],
    [
        Group("b, line 1", ("天气呢？", "今天天气")),
        Group("b, line 2", ("我们", "你我", "我你我")),
        Group("b, line 3", ("今天，我们", "今天去")),
    ],
]
