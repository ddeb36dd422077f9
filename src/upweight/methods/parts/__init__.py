"""Parts that methods are made of. None of them is a method, and none imports one."""
