;; Inner products of int8 codes with a query of int16, exact in int32: eight products an instruction.
;;
;; codes: rows of `stride` bytes, a multiple of 16, each a coordinate plus 128; query: as many int16; out: one int32 a
;; row. The query's size is chosen so that no sum leaves int32.
(module
  (import "page" "memory" (memory 1))
  (func (export "scan")
    (param $codes i32) (param $rows i32) (param $stride i32) (param $query i32) (param $out i32)
    (local $end i32) (local $at i32) (local $codesEnd i32) (local $sum v128) (local $more v128) (local $some v128)
    (local.set $end (i32.add (local.get $out) (i32.shl (local.get $rows) (i32.const 2))))
    (block $done
      (loop $row
        (br_if $done (i32.ge_u (local.get $out) (local.get $end)))
        (local.set $sum (v128.const i32x4 0 0 0 0))
        (local.set $more (v128.const i32x4 0 0 0 0))
        (local.set $at (local.get $query))
        (local.set $codesEnd (i32.add (local.get $codes) (local.get $stride)))
        (loop $block
          ;; The upper bit turned over is 128 less, as a signed number.
          (local.set $some
            (v128.xor
              (v128.load (local.get $codes))
              (v128.const i32x4 0x80808080 0x80808080 0x80808080 0x80808080)))
          (local.set $sum
            (i32x4.add
              (local.get $sum)
              (i32x4.dot_i16x8_s (i16x8.extend_low_i8x16_s (local.get $some)) (v128.load (local.get $at)))))
          (local.set $more
            (i32x4.add
              (local.get $more)
              (i32x4.dot_i16x8_s (i16x8.extend_high_i8x16_s (local.get $some)) (v128.load offset=16 (local.get $at)))))
          (local.set $at (i32.add (local.get $at) (i32.const 32)))
          (local.set $codes (i32.add (local.get $codes) (i32.const 16)))
          (br_if $block (i32.lt_u (local.get $codes) (local.get $codesEnd))))
        (local.set $sum (i32x4.add (local.get $sum) (local.get $more)))
        (i32.store
          (local.get $out)
          (i32.add
            (i32.add (i32x4.extract_lane 0 (local.get $sum)) (i32x4.extract_lane 1 (local.get $sum)))
            (i32.add (i32x4.extract_lane 2 (local.get $sum)) (i32x4.extract_lane 3 (local.get $sum)))))
        (local.set $out (i32.add (local.get $out) (i32.const 4)))
        (br $row)))))
