.code16
.globl _start
_start:
  cli
  cld
  xor %ax,%ax
  mov %ax,%ds
  mov %ax,%es
  mov %ax,%ss
  mov $0x7c00,%sp
  ljmp $0,$main
main:
  # page tables at 0x1000 (PML4), 0x2000 (PDPT), 0x3000 (PD): 2 MiB identity
  mov $0x1000,%edi
  mov %edi,%cr3
  xor %eax,%eax
  mov $0xc00,%ecx
  rep stosl
  movl $0x2003,0x1000
  movl $0x3003,0x2000
  movl $0x83,0x3000
  mov %cr4,%eax
  or $0x20,%eax
  mov %eax,%cr4
  mov $0xc0000080,%ecx
  rdmsr
  or $0x100,%eax
  wrmsr
  lgdt gdtr
  mov %cr0,%eax
  or $0x80000001,%eax
  mov %eax,%cr0
  ljmp $8,$long
.code64
long:
  mov $0x10,%eax
  mov %eax,%ds
  mov %eax,%ss
  # touch memory as a kernel that unpacks itself does: 1 MiB, 64 times
  mov $64,%ebx
again:
  mov $0x100000,%edi
  mov $0x20000,%ecx
  mov %rbx,%rax
  rep stosq
  dec %ebx
  jnz again
  mov $msg,%esi
next:
  lodsb
  test %al,%al
  jz done
  mov %al,%bl
  mov $0x3fd,%edx
wait:
  inb %dx,%al
  test $0x20,%al
  jz wait
  mov $0x3f8,%edx
  mov %bl,%al
  outb %al,%dx
  jmp next
done:
  hlt
  jmp done
.align 8
gdt: .quad 0, 0x00209a0000000000, 0x0000920000000000
gdtr: .word gdtr-gdt-1
  .long gdt
msg: .asciz "tasuki: a 64-bit processor runs\r\n"
.org 510
.word 0xaa55
