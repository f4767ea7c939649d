// Asks a Ferryline server, or any other of the Open Inference Protocol, for the digit in one image.
//
//	go run . 127.0.0.1:8001
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"log"
	"math"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"ferryline.example/go/inference"
)

// A handwritten 3, 8x8, from 0 for white to 16 for black.
var three = []float32{
	0, 0, 7, 15, 13, 1, 0, 0,
	0, 8, 13, 6, 15, 4, 0, 0,
	0, 2, 1, 13, 13, 0, 0, 0,
	0, 0, 2, 15, 11, 1, 0, 0,
	0, 0, 0, 1, 12, 12, 1, 0,
	0, 0, 0, 0, 1, 10, 8, 0,
	0, 0, 8, 4, 5, 14, 9, 0,
	0, 0, 7, 13, 13, 9, 0, 0,
}

func main() {
	address := "127.0.0.1:8001"
	if len(os.Args) > 1 {
		address = os.Args[1]
	}
	if err := run(address); err != nil {
		log.Fatal(err)
	}
}

func run(address string) error {
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	client := inference.NewGRPCInferenceServiceClient(connection)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()

	reply, err := client.ModelInfer(ctx, &inference.ModelInferRequest{
		ModelName: "digits",
		Inputs: []*inference.ModelInferRequest_InferInputTensor{
			{Name: "input", Datatype: "FP32", Shape: []int64{1, int64(len(three))}},
		},
		RawInputContents: [][]byte{raw(three)},
	})
	if err != nil {
		return err
	}
	// outputs come in the order of the model, and their data in the same order
	for index, output := range reply.Outputs {
		if output.Name == "label" {
			fmt.Println("digit", binary.LittleEndian.Uint64(reply.RawOutputContents[index]))
		}
	}
	fmt.Println("version", reply.ModelVersion, "generation", reply.Parameters["ferry_generation"].GetInt64Param())
	return nil
}

// raw gives the little-endian bytes of a tensor, as the protocol carries them.
func raw(values []float32) []byte {
	data := make([]byte, 0, 4*len(values))
	for _, value := range values {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(value))
	}
	return data
}
