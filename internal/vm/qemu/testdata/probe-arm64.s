  adr x1, msg
  movz x2, #0x0900, lsl #16
next: ldrb w0, [x1], #1
  cbz w0, done
  str w0, [x2]
  b next
done: wfi
  b done
msg: .asciz "tasuki: a 64-bit processor runs\r\n"
