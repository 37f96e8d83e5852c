# Status 0 if a supervisor claimed this guest, else 1.
[ -d "$state" ]
